"""What the client presented, found and classified; nothing here is proven."""
