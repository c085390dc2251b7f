"""Networks; one architecture, one file."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.models.auto_deeponet import AutoDeepONet, AutoDeepONetCNN, AutoEDeepONet, AutoFFN
    from pdesurrogate.models.case_conditioning import CaseConditioned
    from pdesurrogate.models.cfdbench_fno import CFDBenchFNO
    from pdesurrogate.models.cfdbench_resnet import CFDBenchResNet
    from pdesurrogate.models.cfdbench_unet import CFDBenchUNet
    from pdesurrogate.models.deeponet import FFN, DeepONet
    from pdesurrogate.models.dilated_resnet import DilatedResNet
    from pdesurrogate.models.ffno import FactorizedFNO
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.models.heads import DiverseHeads, GaussianHead, QuantileHead, WithDropout
    from pdesurrogate.models.ifactformer import IFactFormer
    from pdesurrogate.models.ifno import IFNO
    from pdesurrogate.models.neural_process import AttentiveNeuralProcess, mixture_moments
    from pdesurrogate.models.neuralop import NeuralOperator
    from pdesurrogate.models.reference_weights import load_reference_weights
    from pdesurrogate.models.sfno import SFNO
    from pdesurrogate.models.sinenet import SineNet
    from pdesurrogate.models.specification import recorded
    from pdesurrogate.models.unet import UNet
    from pdesurrogate.models.unet_modern import ModernUNet

__all__ = [
    "FFN",
    "FNO",
    "IFNO",
    "SFNO",
    "AttentiveNeuralProcess",
    "AutoDeepONet",
    "AutoDeepONetCNN",
    "AutoEDeepONet",
    "AutoFFN",
    "CFDBenchFNO",
    "CFDBenchResNet",
    "CFDBenchUNet",
    "CaseConditioned",
    "DeepONet",
    "DilatedResNet",
    "DiverseHeads",
    "FactorizedFNO",
    "GaussianHead",
    "IFactFormer",
    "ModernUNet",
    "NeuralOperator",
    "QuantileHead",
    "SineNet",
    "UNet",
    "WithDropout",
    "load_reference_weights",
    "mixture_moments",
    "recorded",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "AttentiveNeuralProcess": "neural_process",
        "AutoDeepONet": "auto_deeponet",
        "AutoDeepONetCNN": "auto_deeponet",
        "AutoEDeepONet": "auto_deeponet",
        "AutoFFN": "auto_deeponet",
        "CFDBenchFNO": "cfdbench_fno",
        "CFDBenchResNet": "cfdbench_resnet",
        "CFDBenchUNet": "cfdbench_unet",
        "CaseConditioned": "case_conditioning",
        "DeepONet": "deeponet",
        "DilatedResNet": "dilated_resnet",
        "DiverseHeads": "heads",
        "FFN": "deeponet",
        "FNO": "fno",
        "FactorizedFNO": "ffno",
        "GaussianHead": "heads",
        "IFNO": "ifno",
        "IFactFormer": "ifactformer",
        "ModernUNet": "unet_modern",
        "NeuralOperator": "neuralop",
        "QuantileHead": "heads",
        "SFNO": "sfno",
        "SineNet": "sinenet",
        "UNet": "unet",
        "WithDropout": "heads",
        "load_reference_weights": "reference_weights",
        "mixture_moments": "neural_process",
        "recorded": "specification",
    },
)
