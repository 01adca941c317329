from likelify.testing.exponentials import check_exponential as check_exponential
from likelify.testing.flows import check_flow as check_flow
from likelify.testing.flows import check_mass as check_mass
from likelify.testing.flows import check_weights as check_weights
from likelify.testing.maps import check_linear_map as check_linear_map
from likelify.testing.parameters import randomize as randomize
from likelify.testing.transforms import check_transform as check_transform
