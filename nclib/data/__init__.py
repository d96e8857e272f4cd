"""Data sets as plain tensors: images in [0, 1] and integer labels, ready for a device.

``train, test = data.load("signs")`` is all that a lesson needs.
"""

from nclib.data.factors import Factors as Factors
from nclib.data.images import ImageSet as ImageSet
from nclib.data.images import check_images as check_images
from nclib.data.images import check_labels as check_labels
from nclib.data.loading import NAMES as NAMES
from nclib.data.loading import TORCHVISION_SETS as TORCHVISION_SETS
from nclib.data.loading import data_root as data_root
from nclib.data.loading import load as load
from nclib.data.sampling import stratified as stratified
