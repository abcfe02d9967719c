"""The descriptor pool of the messages in this package."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
