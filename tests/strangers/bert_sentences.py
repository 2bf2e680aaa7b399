"""Somebody's fine-tuning with the Trainer of Hugging Face: a tiny BERT with random weights."""

import sys
import tempfile

import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)


class Sentences(Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, i):
        ids = torch.randint(5, 60, (10,), generator=torch.Generator().manual_seed(i))
        mask = (torch.arange(10) < 6 + i % 4).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": int(ids[0] > ids[1])}


def main(measure):
    set_seed(1)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    ))  # fmt: skip
    callbacks = []
    if measure:  # nfa
        from nfa.integrations.huggingface import AnsatzCallback  # nfa

        callbacks.append(AnsatzCallback(every=6, samples=32))  # nfa
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=2, per_device_train_batch_size=8, report_to="none", use_cpu=True,
            learning_rate=1e-3, disable_tqdm=True, save_strategy="epoch", logging_steps=6,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=Sentences(), callbacks=callbacks).train()
    if measure:  # nfa
        print(callbacks[0].report)  # nfa
        print(sorted({row.epoch for row in callbacks[0].history}))  # nfa
    return [*model.state_dict().values(), torch.rand(2)]


if __name__ == "__main__":
    left = main("measure" in sys.argv)
    print("left behind:", *(float(value.double().sum()).hex() for value in left))
