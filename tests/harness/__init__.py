"""What the tests stand on: private servers, a proxy that breaks connections, processes that can be killed."""
