"""What images take on the disk, who needs which part of it, and what may go."""
