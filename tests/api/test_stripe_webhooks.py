"""`POST /webhooks/stripe` over a real socket: what Stripe signs has its effect, and nothing else has any."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.support.api_tokens import value
from tests.support.gateway import ROUTES, GatewayUnderTest, gateway_under_test, mint_token
from tests.support.postgres import PostgresServer
from tests.support.stripe_webhooks import (
    KEY,
    SECRET,
    TARGET,
    Stripe,
    event,
    invoice,
    now_s,
    session,
    signature,
    stripe_api,
    subscription,
)
from tests.support.wire import bearer, request

RULED = [{"path": "/team/**", "auth": "required", "plans": ["team"], "upstream": "app"}, *ROUTES]
TEAM = {"id": "price_team", "lookup_key": "team"}


@pytest.fixture
async def stripe() -> AsyncIterator[Stripe]:
    async with stripe_api() as running:
        yield running


@pytest.fixture(params=[True, False], ids=["fast_lane", "aiohttp_lane"])
async def gateway(request: pytest.FixtureRequest, database_url: str, stripe: Stripe) -> AsyncIterator[GatewayUnderTest]:
    async with gateway_under_test(
        database_url, fast_lane=request.param, stripe=stripe.settings, routes=RULED
    ) as running:
        yield running


async def current(gateway: GatewayUnderTest) -> dict[str, Any]:
    """What `/users/current` tells Alice."""
    user: dict[str, Any] = (await gateway.get("/users/current", bearer(mint_token()))).json()
    return user


async def organization_of(gateway: GatewayUnderTest) -> str:
    return str((await current(gateway))["organization"]["id"])


async def status_of(gateway: GatewayUnderTest) -> str:
    """What the upstream is told of Alice, from the near cache if it holds her."""
    await gateway.get("/x", bearer(mint_token()))
    return str(gateway.upstream.last.one("x-subscription-status"))


async def test_event_takes_effect_at_once_in_this_process(gateway: GatewayUnderTest, stripe: Stripe) -> None:
    token = mint_token()
    organization = await organization_of(gateway)
    before = [(await gateway.get("/team/x", bearer(token))).status, await status_of(gateway)]

    reply = await stripe.send(gateway, event("customer.subscription.created", subscription(organization, price=TEAM)))
    after = [(await gateway.get("/team/x", bearer(token))).status, await status_of(gateway)]
    shown = (await current(gateway))["subscription"]

    assert (reply.status, reply.json()) == (200, {"outcome": "changed"})
    assert before == [403, "trialing"]
    assert after == [200, "active"]
    assert (shown["status"], shown["plan"], shown["daysRemaining"], shown["trialEndsAt"]) == (
        "active",
        "team",
        30,
        None,
    )


async def test_life_of_a_subscription_is_followed(gateway: GatewayUnderTest, stripe: Stripe) -> None:
    organization, start = await organization_of(gateway), now_s() - 1000
    seen = []
    for number, (kind, content) in enumerate(
        [
            ("customer.subscription.created", subscription(organization, status="incomplete")),
            ("invoice.paid", invoice(organization)),
            ("invoice.payment_failed", invoice(organization)),
            ("customer.subscription.updated", subscription(organization, status="past_due")),
            ("invoice.paid", invoice(organization)),
            ("customer.subscription.updated", subscription(organization, cancel_at_period_end=True)),
            ("customer.subscription.deleted", subscription(organization, status="canceled")),
            ("invoice.paid", invoice(organization)),
        ]
    ):
        reply = await stripe.send(gateway, event(kind, content, created=start + number))
        assert reply.status == 200
        seen.append((await current(gateway))["subscription"]["status"])

    # The trial counts until the first payment.
    assert seen == ["trialing", "active", "past_due", "past_due", "active", "active", "canceled", "canceled"]


async def test_order_of_arrival_does_not_matter(gateway: GatewayUnderTest, stripe: Stripe) -> None:
    organization, start = await organization_of(gateway), now_s() - 1000
    deleted = event("customer.subscription.deleted", subscription(organization, status="canceled"), created=start + 9)

    for late in (deleted, event("customer.subscription.created", subscription(organization), created=start), deleted):
        assert (await stripe.send(gateway, late)).status == 200

    assert (await current(gateway))["subscription"]["status"] == "canceled"


async def test_checkout_gives_a_customer_to_an_organization(gateway: GatewayUnderTest, stripe: Stripe) -> None:
    organization = await organization_of(gateway)
    stripe.subscriptions["sub_stripe1"] = subscription(price=TEAM)  # its own metadata name nobody
    early = await stripe.send(gateway, event("customer.subscription.created", subscription(price=TEAM)))
    before = await status_of(gateway)

    reply = await stripe.send(gateway, event("checkout.session.completed", session(organization)))
    after = await status_of(gateway)
    later = event("customer.subscription.updated", subscription(status="past_due", price=TEAM), created=now_s() + 60)
    await stripe.send(gateway, later)

    assert (early.status, reply.status) == (200, 200)
    assert (before, after, await status_of(gateway)) == ("trialing", "active", "past_due")
    assert (stripe.asked, stripe.keys) == (["sub_stripe1"], {f"Bearer {KEY}"})


async def test_checkout_of_a_subscription_that_stripe_does_not_know_keeps_the_customer(
    gateway: GatewayUnderTest, stripe: Stripe
) -> None:
    organization = await organization_of(gateway)
    reply = await stripe.send(gateway, event("checkout.session.completed", session(organization)))
    before = await status_of(gateway)
    await stripe.send(gateway, event("customer.subscription.updated", subscription()))

    assert reply.status == 200
    assert (before, await status_of(gateway)) == ("trialing", "active")


@pytest.mark.parametrize("status", [None, 401, 429, 500])
async def test_checkout_is_sent_again_while_stripe_does_not_answer(
    gateway: GatewayUnderTest, stripe: Stripe, status: int | None
) -> None:
    completed = event("checkout.session.completed", session(await organization_of(gateway)))
    stripe.subscriptions["sub_stripe1"], stripe.status = subscription(), status
    away = await stripe.send(gateway, completed)
    stripe.status = 200

    again = await stripe.send(gateway, completed)

    assert (away.status, away.code) == (503, "verifier_unavailable")
    assert away.get("retry-after") is not None
    assert again.status == 200
    assert await status_of(gateway) == "active"


async def test_what_is_not_signed_by_stripe_for_this_endpoint_is_refused(
    gateway: GatewayUnderTest, stripe: Stripe
) -> None:
    organization = await organization_of(gateway)
    body = orjson.dumps(event("customer.subscription.created", subscription(organization)))
    good = f"Stripe-Signature: {signature(body)}"
    attempts = [
        (body, ()),
        (body, ("Stripe-Signature: ",)),
        (body, (good, good)),
        (body, (f"Stripe-Signature: {signature(body, 'whsec_other')}",)),
        (body, (f"Stripe-Signature: {signature(body, '')}",)),
        (body, (f"Stripe-Signature: {signature(body, signed_at=now_s() - 400)}",)),
        (body, (f"Stripe-Signature: {signature(body, signed_at=now_s() + 400)}",)),
        (body + b" ", (good,)),
        (body, ("Stripe-Signature: t=1,v1=\xe9",)),
        (b"{", (f"Stripe-Signature: {signature(b'{')}",)),
        (b"", (f"Stripe-Signature: {signature(b'')}",)),
    ]

    replies = [await stripe.send_raw(gateway, sent, *lines) for sent, lines in attempts]

    assert {(reply.status, reply.code) for reply in replies} == {(400, "webhook_refused")}
    assert await status_of(gateway) == "trialing"
    assert await value(gateway, "SELECT count(*) FROM webhook_deliveries") == 0


async def test_every_secret_of_the_settings_is_taken(database_url: str, stripe: Stripe) -> None:
    settings = stripe.settings | {"webhook_secrets": ["whsec_new_one", SECRET]}
    body = orjson.dumps(event("charge.succeeded", {"id": "ch_1"}))
    async with gateway_under_test(database_url, stripe=settings) as gateway:
        replies = [
            await stripe.send_raw(gateway, body, f"Stripe-Signature: {signature(body, secret)}")
            for secret in ("whsec_new_one", SECRET)
        ]

    assert [reply.status for reply in replies] == [200, 200]


@pytest.mark.parametrize(
    "content,keys,reason",
    [
        (subscription("org_of_another_environment"), {}, "organization_unknown"),
        (subscription(), {}, "organization_unknown"),
        (subscription("ours"), {"livemode": True}, "other_mode"),
    ],
)
async def test_events_of_other_environments_are_taken_logged_and_change_nothing(
    gateway: GatewayUnderTest,
    stripe: Stripe,
    capsys: pytest.CaptureFixture[str],
    content: dict[str, Any],
    keys: dict[str, Any],
    reason: str,
) -> None:
    organization = await organization_of(gateway)
    if content["metadata"].get("organization_id") == "ours":
        content = content | {"metadata": {"organization_id": organization}}

    reply = await stripe.send(gateway, event("customer.subscription.created", content, **keys))

    assert reply.status == 200
    logged = capsys.readouterr().out
    assert "webhook" in logged
    assert f"outcome={reason}" in logged
    assert await status_of(gateway) == "trialing"


async def test_effects_are_on_record_in_the_chain_of_the_organization(
    gateway: GatewayUnderTest, stripe: Stripe
) -> None:
    organization = await organization_of(gateway)
    await stripe.send(gateway, event("customer.subscription.created", subscription(organization)))

    chain = "SELECT array_agg(action ORDER BY sequence) FROM audit_events WHERE chain = $1"
    request_of = "SELECT address || ' ' || request_id FROM audit_events WHERE chain = $1 AND action LIKE '%changed'"
    assert (await value(gateway, chain, organization))[-2:] == ["subscription.trial_started", "subscription.changed"]
    assert (await value(gateway, request_of, organization)).startswith("127.0.0.1 ")


async def test_event_waits_for_postgresql(postgres_server: PostgresServer, stripe: Stripe) -> None:
    async with gateway_under_test(postgres_server.url, stripe=stripe.settings) as gateway:
        sent = event("customer.subscription.created", subscription(await organization_of(gateway)))
        await postgres_server.stop()
        reply = await stripe.send(gateway, sent)

    assert (reply.status, reply.code) == (503, "store_unavailable")


async def test_event_that_is_too_large_is_refused(gateway: GatewayUnderTest, stripe: Stripe) -> None:
    reply = await stripe.send_raw(gateway, b" " * (1024 * 1024 + 1), f"Stripe-Signature: {signature(b'')}")

    assert reply.status == 413


async def test_endpoint_is_there_only_with_secrets(database_url: str, stripe: Stripe) -> None:
    settings = stripe.settings | {"webhook_secrets": []}
    async with gateway_under_test(database_url, stripe=settings) as gateway:
        reply = await stripe.send(gateway, event("charge.succeeded", {}))
        document = (await gateway.get("/openapi.json")).json()

    assert reply.status == 401
    assert TARGET not in document["paths"]


async def test_endpoint_follows_the_prefix_and_is_described(database_url: str, stripe: Stripe) -> None:
    body = orjson.dumps(event("charge.succeeded", {}))
    line = f"Stripe-Signature: {signature(body)}"
    async with gateway_under_test(database_url, stripe=stripe.settings, api={"prefix": "/gateway"}) as gateway:
        reply = await gateway.ask(request(f"/gateway{TARGET}", line, method="POST", body=body))
        wrong = await gateway.get(f"/gateway{TARGET}")
        document = (await gateway.get("/gateway/openapi.json")).json()

    assert (reply.status, wrong.status) == (200, 405)
    assert f"/gateway{TARGET}" in document["paths"]
