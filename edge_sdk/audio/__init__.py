"""Sound as numbers: numpy only, no device, no clock; one implementation for training and device.

Everything that takes a stream gives the same bits however the stream is cut into blocks.
"""
