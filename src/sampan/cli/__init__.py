"""The command sampan: Docker's verbs and Sampan's own, over the Engine API."""
