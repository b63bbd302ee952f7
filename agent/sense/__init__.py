"""What the device feels: pressure, heat, clocks, battery, and its own processes."""

from agent.sense.sample import PressureSample
from agent.sense.sensors import Sensors

__all__ = ["PressureSample", "Sensors"]
