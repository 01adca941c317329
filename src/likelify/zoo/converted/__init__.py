"""Flows made of networks of the user's by `flowify`: the settings that a run keeps of one, and the flow itself."""

from likelify.zoo.converted.config import ConvertedConfig as ConvertedConfig
