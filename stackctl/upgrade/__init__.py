"""A new version beside the old one: fetched, probed, switched to, held to the gates, kept or taken back."""
