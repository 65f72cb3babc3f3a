"""LAVIS's language models, modeling_llama.py and modeling_t5.py, in a process of their own with transformers 4.33.2, which LAVIS pins.

functions.py starts it and asks, by the names of files on its input and output: a pickle with a model's weights, or with a call of
it (generate() or a pass), and in return one with what it gives.
"""

import importlib.util
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch


class LanguageModel:
    """A model of LAVIS in the other process."""

    def __init__(self, lavis, transformers, kind, model, eos):
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(lavis), str(transformers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        config = model.config.to_dict()
        # Version 5 has other names for two.
        if kind == "llama":
            config["rope_theta"] = (config.pop("rope_parameters", None) or {}).get("rope_theta", 10000.0)
        else:
            config["tie_word_embeddings"] = getattr(model.config, "scale_decoder_outputs", config["tie_word_embeddings"])
        for name in ("dtype", "transformers_version", "architectures"):
            config.pop(name, None)
        self.ask({"kind": kind, "config": config, "state": model.state_dict(), "eos": eos})

    def ask(self, what):
        path = Path(self.folder.name) / "asked"
        path.write_bytes(pickle.dumps(what))
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == str(path), f"the other process has ended: {answer!r}"
        return pickle.loads(path.read_bytes())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def model_of(lavis, kind, config, state, eos):
    name = {"llama": "modeling_llama", "t5": "modeling_t5"}[kind]
    spec = importlib.util.spec_from_file_location(name, lavis / f"models/blip2_models/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if kind == "llama":
        from transformers import GenerationConfig, LlamaConfig

        model = module.LlamaForCausalLM(LlamaConfig(**config))
    else:
        from transformers import GenerationConfig, T5Config

        model = module.T5ForConditionalGeneration(T5Config(**config))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all("inv_freq" in name or "embed_tokens" in name or "lm_head" in name for name in missing), (missing, unexpected)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.generation_config._from_model_config = False  # as a checkpoint's generation_config.json: else it is made anew
    model.generation_config.eos_token_id = eos
    return model.eval()


@torch.no_grad()
def serve(lavis, transformers):
    # Its check of other packages' versions is of 2023, and nothing is downloaded.
    for name in ("transformers.dependency_versions_check", "requests", "requests.exceptions", "huggingface_hub", "huggingface_hub.file_download", "huggingface_hub.utils"):  # fmt: skip
        sys.modules[name] = mock.MagicMock(__spec__=None)
    sys.path.insert(0, str(transformers / "src"))
    import transformers as package

    assert package.__version__ == "4.33.2", package.__version__
    model = None
    for line in sys.stdin:
        path = Path(line.strip())
        asked = pickle.loads(path.read_bytes())
        if model is None:
            model, given = model_of(lavis, **asked), None
        elif "generate" in asked:
            given = model.generate(**asked["generate"])
        else:
            out = model(**asked["pass"])
            given = {"loss": out.loss, "logits": out.logits}
        path.write_bytes(pickle.dumps(given))
        print(path, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
