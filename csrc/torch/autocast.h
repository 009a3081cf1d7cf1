// Layers run in autocast's lower precision, as torch.nn.functional.linear does.
#pragma once

#include <ATen/autocast_mode.h>

namespace pygan {

template <at::DeviceType device, class Argument>
auto lower(const Argument& argument) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), argument, device);
}

}  // namespace pygan
