"""From bytes to answers, without HTTP: decoding, admission control, batching, backends."""
