"""What captioning a collection will take: measured on a few of its clips, multiplied, compared afterwards."""
