"""For how long a session that is over must be kept in mind. Pure."""

from config.model import Settings


def session_life_s(settings: Settings) -> float:
    """How long the last token of a session lives at most after its end, in seconds, with all that stands on it.

    What was minted lives on from the last moment of what it was minted for, and a token that is known is believed for a
    while without a look at its age.
    """
    minted_s = max(settings.tokens.websocket_life, settings.tokens.agent_life)
    return settings.clerk.longest_session_token + settings.clerk.leeway + minted_s + settings.cache.near_ttl
