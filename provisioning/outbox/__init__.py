"""What has to happen elsewhere because of what happened here: written with it, delivered after it."""
