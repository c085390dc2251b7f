"""Networks; one architecture, one file."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.models.dilated_resnet import DilatedResNet
    from pdesurrogate.models.ffno import FactorizedFNO
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.models.ifactformer import IFactFormer
    from pdesurrogate.models.ifno import IFNO
    from pdesurrogate.models.neuralop import NeuralOperator
    from pdesurrogate.models.reference_weights import load_reference_weights
    from pdesurrogate.models.sfno import SFNO
    from pdesurrogate.models.sinenet import SineNet
    from pdesurrogate.models.specification import recorded
    from pdesurrogate.models.unet import UNet
    from pdesurrogate.models.unet_modern import ModernUNet

__all__ = [
    "FNO",
    "IFNO",
    "SFNO",
    "DilatedResNet",
    "FactorizedFNO",
    "IFactFormer",
    "ModernUNet",
    "NeuralOperator",
    "SineNet",
    "UNet",
    "load_reference_weights",
    "recorded",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "DilatedResNet": "dilated_resnet",
        "FNO": "fno",
        "FactorizedFNO": "ffno",
        "IFNO": "ifno",
        "IFactFormer": "ifactformer",
        "ModernUNet": "unet_modern",
        "NeuralOperator": "neuralop",
        "SFNO": "sfno",
        "SineNet": "sinenet",
        "UNet": "unet",
        "load_reference_weights": "reference_weights",
        "recorded": "specification",
    },
)
