"""Wake words of other projects as releases: their files in, our streaming models out."""
