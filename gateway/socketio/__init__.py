"""Routes with `protocol: socketio`: a client shows its token in the packet that connects a namespace."""
