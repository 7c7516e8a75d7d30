"""From a torch module to the `.pt2` that hesspect reads.

    made = hesspect.export(model, example, "model.pt2")
    print(made)                 # inputs, output, losses that fit, what was switched

`model_export` has the whole of it; Hugging Face folders are in `huggingface`, torchvision and timm in `vision`, Lightning and PEFT in
`checkpoints`.
"""

from hesspect.exporting.call import Inputs
from hesspect.exporting.model_export import Exported, export

__all__ = ["Exported", "Inputs", "export"]
