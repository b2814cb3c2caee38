"""Images to registries: layers packed once, uploads that go on after a cut."""
