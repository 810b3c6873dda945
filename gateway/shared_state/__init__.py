"""What several processes share through Redis. It may be away at any time: nothing here decides who may call."""
