/* The Python face: bytes in, bytes out. sandbox/crypto/sm4.py is its only user, and has checked the sizes; they are
 * checked here again, since they keep memory safe.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "backend.h"

#ifdef SM4_HAS_GFNI

enum { LONG = 1 << 13 }; /* bytes from which on giving up the interpreter's lock is worth it */

static int gfni_runs(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("gfni") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("vpclmulqdq");
}

struct call {
    Py_buffer key, nonce, data, aad;
};

static void release(struct call *call)
{
    PyBuffer_Release(&call->key);
    PyBuffer_Release(&call->nonce);
    PyBuffer_Release(&call->data);
    PyBuffer_Release(&call->aad);
}

/* Take the arguments; return 0, or -1 with an error and nothing to release. `extra` is what comes with the text. */
static int take(PyObject *arguments, const char *format, struct call *call, Py_ssize_t extra)
{
    if (!PyArg_ParseTuple(arguments, format, &call->key, &call->nonce, &call->data, &call->aad))
        return -1;
    if (!gfni_runs())
        PyErr_SetString(PyExc_ValueError, "this processor has no GFNI, or no VPCLMULQDQ");
    else if (call->key.len != SM4_KEY || call->nonce.len != SM4_NONCE)
        PyErr_SetString(PyExc_ValueError, "the key or the nonce has another size");
    else if (call->data.len < extra || (uint64_t)(call->data.len - extra) > SM4_MOST_BYTES)
        PyErr_SetString(PyExc_ValueError, "too few bytes, or more than one nonce serves");
    else
        return 0;
    release(call);
    return -1;
}

static PyObject *seal(PyObject *module, PyObject *arguments)
{
    struct call call;

    (void)module;
    if (take(arguments, "y*y*y*y*:seal", &call, 0) != 0)
        return NULL;
    struct bytes text = {call.data.buf, (size_t)call.data.len}, aad = {call.aad.buf, (size_t)call.aad.len};
    PyObject *sealed = call.data.len > PY_SSIZE_T_MAX - SM4_TAG
                           ? PyErr_NoMemory()
                           : PyBytes_FromStringAndSize(NULL, call.data.len + SM4_TAG);
    if (sealed) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(sealed);
        PyThreadState *state = text.size + aad.size >= LONG ? PyEval_SaveThread() : NULL;

        sm4_seal(call.key.buf, call.nonce.buf, text, aad, to);
        if (state)
            PyEval_RestoreThread(state);
    }
    release(&call);
    return sealed;
}

static PyObject *unseal(PyObject *module, PyObject *arguments)
{
    struct call call;

    (void)module;
    if (take(arguments, "y*y*y*y*:unseal", &call, SM4_TAG) != 0)
        return NULL;
    struct bytes text = {call.data.buf, (size_t)(call.data.len - SM4_TAG)}, aad = {call.aad.buf, (size_t)call.aad.len};
    PyObject *opened = PyBytes_FromStringAndSize(NULL, call.data.len - SM4_TAG);
    if (opened) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(opened);
        PyThreadState *state = text.size + aad.size >= LONG ? PyEval_SaveThread() : NULL;
        int failed = sm4_open(call.key.buf, call.nonce.buf, text, text.at + text.size, aad, to);

        if (state)
            PyEval_RestoreThread(state);
        if (failed) {
            Py_DECREF(opened);
            opened = Py_None;
            Py_INCREF(opened);
        }
    }
    release(&call);
    return opened;
}

#endif

static PyObject *runs(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
#ifdef SM4_HAS_GFNI
    return PyBool_FromLong(gfni_runs());
#else
    return PyBool_FromLong(0);
#endif
}

static PyMethodDef functions[] = {
    {"runs", runs, METH_NOARGS, "runs() -> whether this processor can"},
#ifdef SM4_HAS_GFNI
    {"seal", seal, METH_VARARGS, "seal(key, nonce, plaintext, aad) -> ciphertext and tag"},
    {"unseal", unseal, METH_VARARGS, "unseal(key, nonce, sealed, aad) -> plaintext, or None if it does not open"},
#endif
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "SM4-GCM, 64 blocks at a time.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
