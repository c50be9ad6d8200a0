/* The Python face: bytes in, bytes out, without the interpreter's lock. sandbox/crypto/sm2curve.py is its only user.
 *
 * Sizes and offsets are checked here, since they keep memory safe; everything else is checked there.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "backend.h"
#include "bytes.h"

#ifdef SM2CURVE_HAS_IFMA
static int ifma_runs(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512ifma");
}
#endif

/* Return the back end of that name if this processor can run it; else set ValueError. */
static const struct backend *find(const char *name)
{
    if (strcmp(name, sm2curve_portable.name) == 0)
        return &sm2curve_portable;
#ifdef SM2CURVE_HAS_IFMA
    if (strcmp(name, sm2curve_ifma.name) == 0 && ifma_runs())
        return &sm2curve_ifma;
#endif
    PyErr_SetString(PyExc_ValueError, "this processor has no such back end");
    return NULL;
}

static PyObject *backends(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
#ifdef SM2CURVE_HAS_IFMA
    if (ifma_runs())
        return Py_BuildValue("(ss)", sm2curve_ifma.name, sm2curve_portable.name);
#endif
    return Py_BuildValue("(s)", sm2curve_portable.name);
}

/* Results of `count` elements: their points, and a byte an element that is 1 where there is none. */
static int new_results(Py_ssize_t count, PyObject **points, PyObject **bad)
{
    *points = count <= PY_SSIZE_T_MAX / POINT_BYTES ? PyBytes_FromStringAndSize(NULL, count * POINT_BYTES) : NULL;
    *bad = PyBytes_FromStringAndSize(NULL, count);
    if (*points && *bad)
        return 0;
    Py_CLEAR(*points);
    Py_CLEAR(*bad);
    return PyErr_Occurred() ? -1 : (PyErr_NoMemory(), -1);
}

/* Return (points, bad), or an error if there was no memory for the work space. */
static PyObject *finish(int failed, PyObject *points, PyObject *bad)
{
    PyObject *pair = failed ? PyErr_NoMemory() : PyTuple_Pack(2, points, bad);

    Py_DECREF(points);
    Py_DECREF(bad);
    return pair;
}

/* Recode a scalar; return -1 with an error unless it is one. */
static int recode(struct recoded *out, const Py_buffer *scalar)
{
    if (scalar->len == SCALAR_BYTES && sm2curve_recode(out, scalar->buf) == 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "a scalar is 32 bytes, in 1 .. n - 1");
    return -1;
}

static PyObject *multiply(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_buffer scalar, points;
    PyObject *out, *bad, *result = NULL;
    struct recoded recoded;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*y*:multiply", &name, &scalar, &points))
        return NULL;
    const struct backend *backend = find(name);
    if (backend == NULL)
        goto release;
    if (points.len % POINT_BYTES != 0) {
        PyErr_SetString(PyExc_ValueError, "a point is 33 bytes");
        goto release;
    }
    if (recode(&recoded, &scalar) != 0)
        goto wipe;
    Py_ssize_t count = points.len / POINT_BYTES;
    if (new_results(count, &out, &bad) == 0) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(out), *marks = (uint8_t *)PyBytes_AsString(bad);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = backend->multiply(&recoded, points.buf, (size_t)count, to, marks);
        Py_END_ALLOW_THREADS
        result = finish(failed, out, bad);
    }
wipe:
    sm2curve_wipe(&recoded, sizeof recoded);
release:
    PyBuffer_Release(&scalar);
    PyBuffer_Release(&points);
    return result;
}

/* Map, and multiply unless there is no scalar. */
static int map_items(const struct backend *backend, const struct recoded *scalar, const uint8_t *uniform, size_t count,
                     uint8_t *out, uint8_t *bad)
{
    return scalar ? backend->multiply_mapped(scalar, uniform, count, out, bad)
                  : backend->map(uniform, count, out, bad);
}

static PyObject *map(const char *name, const struct recoded *scalar, const Py_buffer *uniform)
{
    PyObject *out, *bad, *result = NULL;
    const struct backend *backend = find(name);
    Py_ssize_t count = uniform->len / UNIFORM_BYTES;

    if (backend && uniform->len % UNIFORM_BYTES != 0) {
        PyErr_SetString(PyExc_ValueError, "two field elements are 96 bytes");
    } else if (backend && new_results(count, &out, &bad) == 0) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(out), *marks = (uint8_t *)PyBytes_AsString(bad);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = map_items(backend, scalar, uniform->buf, (size_t)count, to, marks);
        Py_END_ALLOW_THREADS
        result = finish(failed, out, bad);
    }
    return result;
}

static PyObject *map_to_curve(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_buffer uniform;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*:map_to_curve", &name, &uniform))
        return NULL;
    PyObject *result = map(name, NULL, &uniform);
    PyBuffer_Release(&uniform);
    return result;
}

static PyObject *multiply_mapped(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_buffer scalar, uniform;
    struct recoded recoded;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*y*:multiply_mapped", &name, &scalar, &uniform))
        return NULL;
    PyObject *result = recode(&recoded, &scalar) == 0 ? map(name, &recoded, &uniform) : NULL;
    sm2curve_wipe(&recoded, sizeof recoded);
    PyBuffer_Release(&scalar);
    PyBuffer_Release(&uniform);
    return result;
}

/* Return the number of messages, or -1 with an error unless all of them lie in the data. The offsets have been copied:
 * another thread may write into a buffer while it is read. */
static Py_ssize_t check_messages(const int64_t *offsets, Py_ssize_t size, Py_ssize_t data_size, Py_ssize_t tag_size)
{
    Py_ssize_t count = size / (Py_ssize_t)sizeof(int64_t) - 1;
    int sound = size % (Py_ssize_t)sizeof(int64_t) == 0 && count >= 0 && tag_size >= 1 && tag_size <= MAX_TAG &&
                count <= PY_SSIZE_T_MAX / UNIFORM_BYTES;

    sound = sound && offsets[0] >= 0 && offsets[0] <= data_size;
    for (Py_ssize_t i = 0; sound && i < count; i++)
        sound = offsets[i + 1] >= offsets[i] && offsets[i + 1] <= data_size &&
                offsets[i + 1] - offsets[i] <= MAX_MESSAGE;
    if (sound)
        return count;
    PyErr_SetString(PyExc_ValueError, "the offsets, a message or the tag are out of range");
    return -1;
}

/* What becomes of a message: its expansion, its point, or that point times the scalar. */
static PyObject *hash(const char *name, const struct recoded *scalar, const Py_buffer *data, const Py_buffer *offsets,
                      const Py_buffer *tag, int is_mapped)
{
    PyObject *out = NULL, *bad = NULL, *result = NULL;
    uint8_t *uniform = NULL;
    int64_t *places = NULL;
    const struct backend *backend = find(name);
    Py_ssize_t count = -1;

    if (backend && !(places = malloc((size_t)offsets->len + 1)))
        PyErr_NoMemory();
    if (places) {
        memcpy(places, offsets->buf, (size_t)offsets->len);
        count = check_messages(places, offsets->len, data->len, tag->len);
    }
    if (count >= 0 && !is_mapped) {
        out = PyBytes_FromStringAndSize(NULL, count * UNIFORM_BYTES);
        bad = PyBytes_FromStringAndSize(NULL, 0);
        if (!out || !bad) {
            Py_CLEAR(out);
            Py_CLEAR(bad);
        }
    } else if (count >= 0 && !(uniform = malloc((size_t)count * UNIFORM_BYTES + 1))) {
        PyErr_NoMemory();
    } else if (count >= 0) {
        new_results(count, &out, &bad);
    }
    if (out) {
        uint8_t *to = (uint8_t *)PyBytes_AsString(out), *marks = (uint8_t *)PyBytes_AsString(bad);
        int failed;

        Py_BEGIN_ALLOW_THREADS
        failed = backend->expand(data->buf, places, (size_t)count, tag->buf, (size_t)tag->len,
                                 is_mapped ? uniform : to);
        if (is_mapped && !failed) {
            failed = map_items(backend, scalar, uniform, (size_t)count, to, marks);
            sm2curve_wipe(uniform, (size_t)count * UNIFORM_BYTES);
        }
        Py_END_ALLOW_THREADS
        result = finish(failed, out, bad);
    }
    free(uniform);
    free(places);
    return result;
}

static PyObject *hash_without_scalar(PyObject *arguments, int is_mapped)
{
    const char *name;
    Py_buffer data, offsets, tag;

    if (!PyArg_ParseTuple(arguments, "sy*y*y*", &name, &data, &offsets, &tag))
        return NULL;
    PyObject *result = hash(name, NULL, &data, &offsets, &tag, is_mapped);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&tag);
    return result;
}

static PyObject *expand(PyObject *module, PyObject *arguments)
{
    (void)module;
    return hash_without_scalar(arguments, 0);
}

static PyObject *hash_to_curve(PyObject *module, PyObject *arguments)
{
    (void)module;
    return hash_without_scalar(arguments, 1);
}

static PyObject *multiply_hashed(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_buffer scalar, data, offsets, tag;
    struct recoded recoded;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*y*y*y*:multiply_hashed", &name, &scalar, &data, &offsets, &tag))
        return NULL;
    PyObject *result =
        recode(&recoded, &scalar) == 0 ? hash(name, &recoded, &data, &offsets, &tag, 1) : NULL;
    sm2curve_wipe(&recoded, sizeof recoded);
    PyBuffer_Release(&scalar);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&tag);
    return result;
}

static PyMethodDef functions[] = {
    {"backends", backends, METH_NOARGS, "backends() -> the names this processor can run, fastest first"},
    {"multiply", multiply, METH_VARARGS, "multiply(backend, scalar, points) -> (products, marks)"},
    {"map_to_curve", map_to_curve, METH_VARARGS, "map_to_curve(backend, uniform) -> (points, marks)"},
    {"expand", expand, METH_VARARGS, "expand(backend, data, offsets, tag) -> (uniform, nothing)"},
    {"hash_to_curve", hash_to_curve, METH_VARARGS, "hash_to_curve(backend, data, offsets, tag) -> (points, marks)"},
    {"multiply_mapped", multiply_mapped, METH_VARARGS, "multiply_mapped(backend, scalar, uniform) -> (products, marks)"},
    {"multiply_hashed", multiply_hashed, METH_VARARGS,
     "multiply_hashed(backend, scalar, data, offsets, tag) -> (products, marks)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "SM2-curve arithmetic in batches.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
