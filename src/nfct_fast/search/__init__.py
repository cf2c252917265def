"""Finding flows in a store: by time, by filter, by Community ID, by alerts of others; and what is around one of them."""
