"""One connection's conversation: requests in order, replies in order, writes together."""
