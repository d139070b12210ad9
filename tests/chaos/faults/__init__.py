"""What can happen to a plant: one small class each, by the row of the fault matrix that it belongs to."""
