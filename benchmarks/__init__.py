"""What edgeq costs and yields, measured against its peers in the same run on the same machine."""
