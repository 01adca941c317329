"""Rules for pooling and upsampling."""
