"""What a rendered site goes through before it is published, in plain Python on plain files."""
