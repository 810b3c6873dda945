import html
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.outbox.effects import Delivery, DeliveryFailed
from provisioning.outbox.slack import Slack, escaped, message_of
from tests.support.outboxes import slack_effect
from tests.support.receivers import FakeSlack

NAMES = st.text(min_size=1)


@given(st.text())
def test_escaped_text_has_no_control_character_of_slack_and_reads_the_same(text: str) -> None:
    shown = escaped(text)

    assert not {"<", ">"} & set(shown)
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


@given(st.text(alphabet="<>&!@|amplt;gx"))
def test_escaping_is_what_html_does_to_these_three(text: str) -> None:
    assert escaped(text) == html.escape(text, quote=False)


@given(st.fixed_dictionaries(dict.fromkeys(("name", "email", "organizationName", "userId", "plan"), NAMES)))
def test_nothing_people_choose_can_mention_link_or_format(payload: Mapping[str, str]) -> None:
    message = message_of(payload)

    assert not {"<", ">"} & set(str(message["text"]))
    assert (message["mrkdwn"], message["unfurl_links"], message["unfurl_media"]) == (False, False, False)
    assert all(escaped(text) in str(message["text"]) for text in payload.values())


def test_a_message_tells_who_where_and_by_which_id() -> None:
    facts = {"userId": "usr_1", "name": "Al <!channel>", "email": "a&b@example.com", "organizationName": "Acme"}
    text = message_of(facts | {"organizationId": "org_1", "plan": "pro"})["text"]

    assert text == (
        "New user: Al &lt;!channel&gt;, a&amp;b@example.com\nOrganization: Acme (org_1)\nTrial: pro\nId: usr_1"
    )


def test_a_profile_that_nobody_knows_yet_is_said_to_be_unknown() -> None:
    assert str(message_of({"userId": "usr_1", "name": None})["text"]).startswith(
        "New user: not known yet, not known yet\n"
    )


async def test_a_webhook_that_is_gone_is_refused_without_its_address(
    session: aiohttp.ClientSession, slack_fake: FakeSlack
) -> None:
    effect = slack_effect(1)
    delivery = Delivery(1, "slack", effect.kind, effect.key, effect.payload, datetime.now(UTC), 1)
    with pytest.raises(DeliveryFailed) as gone:
        await Slack(session, f"{slack_fake.url}/services/of/somebody/else").deliver([delivery])
    with pytest.raises(DeliveryFailed) as nowhere:
        await Slack(session, "http://127.0.0.1:1/services/secret").deliver([delivery])

    slack_fake.failing = "redirect"
    with pytest.raises(DeliveryFailed) as moved:
        await Slack(session, slack_fake.webhook_url).deliver([delivery])

    assert [error.value.reason for error in (gone, nowhere, moved)] == ["refused", "unreachable", "refused"]
    assert len(slack_fake.asked) == 2  # a redirect is not followed
    assert nowhere.value.__cause__ is None
    assert "secret" not in repr(nowhere.value)
