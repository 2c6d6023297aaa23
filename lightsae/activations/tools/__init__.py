"""`lightsae shards`: inspect, verify, rewrite and convert folders of shards."""
