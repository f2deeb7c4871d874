"""What services are written with: handlers of commands, compensations and events."""
