"""Rate limits: how often somebody may call, and how often anybody may fail to prove who they are."""
