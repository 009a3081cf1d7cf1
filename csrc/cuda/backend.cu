// The table of the CUDA backend.
#include "backend.h"

namespace pygan::cuda {

const Backend& backend() {
  static constexpr Backend table = {"cuda",
                                    linear_act_forward,
                                    linear_act_backward,
                                    maxout_forward,
                                    maxout_backward,
                                    linear_batch_norm_act_forward,
                                    linear_batch_norm_act_backward,
                                    dropout_forward,
                                    gan_loss_forward,
                                    gan_loss_backward,
                                    head_loss_forward,
                                    head_loss_backward,
                                    momentum_update,
                                    adam_update,
                                    noise,
                                    minibatch_indices,
                                    parzen_log_likelihood,
                                    linear_act_grad,
                                    maxout_grad,
                                    small_mlp_forward,
                                    small_mlp_backward,
                                    make_engine};
  return table;
}

}  // namespace pygan::cuda
