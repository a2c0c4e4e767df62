"""Files as all above read and write them: nothing that hangs or floods, nothing half written, no two runs at once."""
