"""The loop itself, run by the thousand in worlds where everything goes wrong."""
