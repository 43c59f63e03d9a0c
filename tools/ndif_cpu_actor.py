"""NDIF's model and controller actors for a machine without a GPU; imported by the server alone.

NDIF 0.1.2 places models on GPUs and calls CUDA around each job. Here the model stays in ordinary
memory, and Ray is told of one GPU that does not exist (see `tools.ndif`).
"""

import gc
import inspect
import os

import ray
import torch
from ndif.services.ray.deployments.controller.controller import _ControllerActor
from ndif.services.ray.deployments.modeling.base import BaseModelDeployment
from nnsight.modeling.huggingface import HuggingFaceModel
from nnsight.modeling.mixins.remotable import Remotable


class CPUModelDeployment(BaseModelDeployment):
    """A model in ordinary memory."""

    CACHEABLE = False  # there is no second memory to park it in

    def load_from_disk(self) -> HuggingFaceModel:
        torch.set_num_threads(os.cpu_count())  # Ray allows an actor one thread
        given = {name: value for name, value in self.kwargs.items() if value}
        model = HuggingFaceModel.from_model_key(
            self.model_key, dispatch=True, dtype=self.dtype_name, **given
        )
        model._module.requires_grad_(False)
        return model

    def cleanup(self) -> None:
        self.kill_switch.clear()
        self.kill_reason = self.execution_ident = None
        self.model.interleaver.cancel()
        gc.collect()


def adapt() -> None:
    """Let NDIF 0.1.2 work with nnsight 0.8.1, and size models without asking the hub.

    It passes ``trust_remote_code`` to methods that no longer take it. And the hub, which it asks
    for the number of weights, does not know a folder and may be out of reach.
    """

    def without_trust(method):
        def called(cls, *args, trust_remote_code=False, **options):
            return method(cls, *args, **options)

        return classmethod(called)

    for name in ("describe_checkpoint", "max_tp_size"):
        method = getattr(Remotable, name).__func__
        kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            setattr(Remotable, name, without_trust(method))
    HuggingFaceModel._hub_parameter_count = staticmethod(lambda repo_id, revision: None)


@ray.remote(num_cpus=1, max_restarts=-1)
class CPUModelActor(CPUModelDeployment):
    """One replica of a model."""


@ray.remote(num_cpus=1, num_gpus=0, max_restarts=-1, resources={"head": 1})
class CPUControllerActor(_ControllerActor):
    """The controller, adapted in the process that Ray starts for it."""

    def __init__(self, *args, **kwargs):
        from tools import ndif_cpu_actor  # the module itself, not the copy that Ray sends along

        ndif_cpu_actor.adapt()
        super().__init__(*args, **kwargs)
