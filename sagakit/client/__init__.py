"""What applications start and ask sagas with."""
