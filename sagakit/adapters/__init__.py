"""The ports on the real world: Kafka, the embedded broker, registries, files."""
