#include "hesspect/config/commands.h"

#include <algorithm>

namespace hesspect {

std::span<const CommandEntry> command_entries() {
  constexpr std::string_view kPrepare = "to make what hesspect reads (in Python)",
                             kCompute = "to compute, on one process or several (run)",
                             kRead = "to look at files and results", kShow = "to hand results on (in Python)",
                             kQueue = "to have jobs run by a service that stays",
                             kStart = "to start several processes, and for the shell";
  using Home = CommandHome;
  static const std::vector<CommandEntry> entries = {
      {"export",
       "a Hugging Face folder or another model to the program that hesspect reads",
       Home::kPython,
       kPrepare,
       {"hf", "torchvision", "timm", "lightning", "peft"}},
      {"data",
       "text, tables or images to the data file that hesspect reads",
       Home::kPython,
       kPrepare,
       {"text", "table", "images", "check"}},

      {"analyze", "density, trace, layers' traces, top and bottom eigenvalues, each as good as asked for", Home::kRanks,
       kCompute},
      {"density", "the spectral density alone, or an earlier one smoothed again (--from)", Home::kRanks, kCompute},
      {"eigs", "top and bottom eigenvalues alone", Home::kRanks, kCompute},
      {"trace", "the trace alone", Home::kRanks, kCompute},
      {"inputs", "how sharp the loss is in each row's inputs, and which rows are the most fragile", Home::kRanks,
       kCompute},
      {"landscape", "the loss along eigenvectors, random directions or the way to another checkpoint", Home::kRanks,
       kCompute},
      {"sharpness", "what ascent steps, steps of an optimiser and random steps do to the loss", Home::kRanks, kCompute},
      {"features", "curvature, frequency and sensitivity of embedding tables, their rows, and input columns",
       Home::kRanks, kCompute},
      {"series", "all of analyze for the checkpoints of a training run, also while it goes on (--follow)", Home::kRanks,
       kCompute},
      {"plan", "what a run would take in memory, messages and time, and its layout over ranks", Home::kRanks, kCompute},

      {"inspect", "what a .pt2, a state dict, a data file, a result or a series holds", Home::kOne, kRead},
      {"report", "what results say of their models, with intervals, sources and objections", Home::kOne, kRead},
      {"compare", "like-trained models side by side", Home::kOne, kRead},

      {"plot", "a picture of a result", Home::kPython, kShow},
      {"tables", "the tables of a result as CSV or JSON", Home::kPython, kShow},
      {"track", "a result for TensorBoard, Weights & Biases or MLflow", Home::kPython, kShow},

      {"serve", "run the jobs of a folder as they come, one after the other", Home::kService, kQueue},
      {"submit", "hand a job in, to a service or to Slurm", Home::kFront, kQueue},
      {"queue", "which jobs wait, run and have ended", Home::kFront, kQueue},
      {"cancel", "take jobs out of the queue, or end those at work", Home::kFront, kQueue},
      {"wait", "wait until jobs have ended", Home::kFront, kQueue},
      {"log", "what a job has said", Home::kFront, kQueue},

      {"run", "start one of the above on several processes, by mpirun or srun: run --ranks 4 COMMAND ...", Home::kFront,
       kStart},
      {"completion",
       "a script by which a shell completes commands, options and values",
       Home::kFront,
       kStart,
       {"bash", "zsh", "fish"}},
      {"man", "the manual page, for man -l or a folder man1", Home::kFront, kStart},
  };
  return entries;
}

const CommandEntry* find_command(std::string_view name) {
  const auto found = std::ranges::find(command_entries(), name, &CommandEntry::name);
  return found == command_entries().end() ? nullptr : &*found;
}

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const CommandEntry& entry : command_entries()) names.emplace_back(entry.name);
  return names;
}

}  // namespace hesspect
