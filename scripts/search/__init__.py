"""Search: what the built pages say, written as one compact index a language, answered in the browser."""
