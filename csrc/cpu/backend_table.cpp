// The table of one instruction set; compiled once per set, like every kernel file beside it.
#include "kernels.h"

namespace pygan::cpu::PYGAN_ISA {

#define PYGAN_NAME_OF(isa) #isa
#define PYGAN_NAME(isa) PYGAN_NAME_OF(isa)

extern const Backend table;
const Backend table = {
    PYGAN_NAME(PYGAN_ISA),
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
    nullptr,
    nullptr,
    nullptr,
    make_engine,
};

}  // namespace pygan::cpu::PYGAN_ISA
