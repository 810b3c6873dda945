"""What the commands of `gateway` do, and how their command lines are read."""
