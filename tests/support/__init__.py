"""What the tests stand on: engines to test, clients to drive them, and the search for what they leave."""
