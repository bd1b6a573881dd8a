"""Values whose digests are pinned, and the digests."""
