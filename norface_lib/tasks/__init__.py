"""The three tasks with their losses and metrics: AU detection, AU intensity, emotion."""
