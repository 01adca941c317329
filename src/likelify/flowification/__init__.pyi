from likelify.flowification.convert import Flowified as Flowified
from likelify.flowification.convert import flowify as flowify
from likelify.flowification.convert import rule as rule
from likelify.flowification.options import Options as Options
from likelify.flowification.report import Conversion as Conversion
from likelify.flowification.report import LayerRecord as LayerRecord
from likelify.flowification.rules import DATA as DATA
from likelify.flowification.rules import Call as Call
