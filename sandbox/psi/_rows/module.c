/* The Python face: arrays in, arrays filled. sandbox/psi/native.py is its only user. Sizes and places are checked here,
 * since they keep memory safe.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "rows.h"

#include <stdlib.h>

static PyObject *refuse(const char *why)
{
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

/* Whether keys lie one after the other inside the data, none longer than the factors allow. */
static int are_keys(const int64_t *offsets, size_t count, size_t data, size_t longest)
{
    if (offsets[0] < 0 || (uint64_t)offsets[count] > data)
        return 0;
    for (size_t i = 0; i < count; i++)
        if (offsets[i + 1] < offsets[i] || (uint64_t)(offsets[i + 1] - offsets[i]) > longest)
            return 0;
    return 1;
}

static PyObject *digest(PyObject *module, PyObject *arguments)
{
    Py_buffer offsets, data, factors, out;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*w*:digest", &offsets, &data, &factors, &out))
        return NULL;
    size_t count = (size_t)offsets.len / 8, words = (size_t)factors.len / (8 * LANES);
    if (offsets.len % 8 || count < 1 || factors.len % (8 * LANES) || words < 2 ||
        (size_t)out.len != (count - 1) * 8 * DIGEST)
        refuse("the arrays do not fit each other");
    else if (!are_keys(offsets.buf, count - 1, (size_t)data.len, 4 * (words - 2)))
        refuse("the keys are not inside the data, or too long");
    else {
        Py_BEGIN_ALLOW_THREADS
        rows_digest(offsets.buf, count - 1, data.buf, factors.buf, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_None;
        Py_INCREF(result);
    }
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&data);
    PyBuffer_Release(&factors);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *order(PyObject *module, PyObject *arguments)
{
    Py_buffer digests, out;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*w*:order", &digests, &out))
        return NULL;
    size_t count = (size_t)out.len / 8;
    if (out.len % 8 || (size_t)digests.len != count * 8 * DIGEST)
        refuse("the arrays do not fit each other");
    else {
        uint64_t *kept = malloc((size_t)digests.len + 16);
        int twice = 0;

        if (kept == NULL)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            twice = rows_order(digests.buf, count, kept, out.buf);
            Py_END_ALLOW_THREADS
            free(kept);
            result = PyBool_FromLong(twice);
        }
    }
    PyBuffer_Release(&digests);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *shuffle(PyObject *module, PyObject *arguments)
{
    Py_buffer random, out;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*w*:shuffle", &random, &out))
        return NULL;
    if (out.len % 8 || random.len != out.len)
        refuse("the arrays do not fit each other");
    else {
        Py_BEGIN_ALLOW_THREADS
        rows_shuffle(random.buf, (size_t)out.len / 8, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_None;
        Py_INCREF(result);
    }
    PyBuffer_Release(&random);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *write_lines(PyObject *module, PyObject *arguments)
{
    Py_buffer digests, out;
    unsigned long first;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*kw*:write", &digests, &first, &out))
        return NULL;
    size_t count = (size_t)digests.len / (8 * DIGEST);
    if (digests.len % (8 * DIGEST) || (size_t)out.len != count * LINE || first > MOST_ROWS ||
        count > MOST_ROWS - first)
        refuse("the arrays do not fit each other, or a row has too high a number");
    else {
        Py_BEGIN_ALLOW_THREADS
        rows_write(digests.buf, count, (uint32_t)first, out.buf);
        Py_END_ALLOW_THREADS
        result = Py_None;
        Py_INCREF(result);
    }
    PyBuffer_Release(&digests);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *read_lines(PyObject *module, PyObject *arguments)
{
    Py_buffer lines, digests, out;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*w*:read", &lines, &digests, &out))
        return NULL;
    size_t count = (size_t)out.len / 8, known = (size_t)digests.len / (8 * DIGEST);
    if (out.len % 8 || digests.len % (8 * DIGEST) || (size_t)lines.len != count * LINE)
        refuse("the arrays do not fit each other");
    else {
        uint8_t *seen = calloc(known + 1, 1);
        enum rows_wrong wrong = ROWS_SOUND;

        if (seen == NULL)
            PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS
            wrong = rows_read(lines.buf, count, digests.buf, known, seen, out.buf);
            Py_END_ALLOW_THREADS
            free(seen);
            result = PyLong_FromLong((long)wrong);
        }
    }
    PyBuffer_Release(&lines);
    PyBuffer_Release(&digests);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *sum_lines(PyObject *module, PyObject *argument)
{
    Py_buffer lines;
    uint64_t sums[4];

    (void)module;
    if (PyObject_GetBuffer(argument, &lines, PyBUF_SIMPLE) != 0)
        return NULL;
    enum rows_wrong wrong = lines.len % LINE || lines.len / LINE > MOST_ROWS
                                ? ROWS_FORM
                                : rows_sum(lines.buf, (size_t)lines.len / LINE, sums);
    PyBuffer_Release(&lines);
    if (wrong != ROWS_SOUND)
        return refuse("these are no lines");
    return Py_BuildValue("KKKK", sums[0], sums[1], sums[2], sums[3]);
}

static PyMethodDef functions[] = {
    {"digest", digest, METH_VARARGS, "digest(offsets, data, factors, out)"},
    {"order", order, METH_VARARGS, "order(digests, out) -> whether two are equal"},
    {"shuffle", shuffle, METH_VARARGS, "shuffle(random words, out)"},
    {"write", write_lines, METH_VARARGS, "write(digests, first, out)"},
    {"read", read_lines, METH_VARARGS, "read(lines, digests, out) -> 0, or what is wrong"},
    {"sum", sum_lines, METH_O, "sum(lines) -> four sums"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The loops over rows of an intersection.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
