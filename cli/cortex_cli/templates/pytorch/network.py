"""The network. Save trained weights with `torch.save(network.state_dict(), "weights.pt")`."""

import torch


class Network(torch.nn.Module):
    """Classify a flower. Input: [N, 4] measurements, float32. Output: [N, 3] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def forward(self, flowers: torch.Tensor) -> torch.Tensor:
        return self.layers(flowers)
